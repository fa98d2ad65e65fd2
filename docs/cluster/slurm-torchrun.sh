#!/bin/bash
# One cell on two machines of four processes each: gradient rows, factors and blocks (layers, for L-OBS) are dealt out to them.
#     sbatch docs/cluster/slurm-torchrun.sh
#SBATCH --job-name=woodfisher-torchrun
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=logs-%j.txt
set -euo pipefail

SHARED=${SHARED:-$SLURM_SUBMIT_DIR}
PROCESSES=${PROCESSES:-4}  # with GPUs: one each, and --gres=gpu:4 above
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / PROCESSES))
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # head would close the pipe, and pipefail end the job

exec srun --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$PROCESSES" \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$FIRST:29500" \
    -m woodfisher.prune --figure 3a --cell woodfisher-0.8-seed0 --device auto \
    --memory-budget 12 --data-dir "$SHARED/data" --output-dir "$SHARED/runs"
