#!/bin/bash
# Eight tasks share the cells of WoodFisher's Fig. 3a. Submit again to complete what a killed task left:
#     sbatch docs/cluster/slurm-array.sh
#SBATCH --job-name=woodfisher-3a
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=logs-%A-%a.txt
set -euo pipefail

SHARED=${SHARED:-$SLURM_SUBMIT_DIR}  # a folder that every node sees, and whose locks every node sees
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

exec python -m woodfisher.prune --figure 3a \
    --shard $((SLURM_ARRAY_TASK_ID + 1))/"$SLURM_ARRAY_TASK_COUNT" \
    --memory-budget 10 --data-dir "$SHARED/data" --output-dir "$SHARED/runs"
