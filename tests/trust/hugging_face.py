"""transformers' Conv1D as that library defines it, for tests without the library."""

import torch
from torch import nn


class Conv1D(nn.Module):
    """nf outputs, nx inputs; weight [nx, nf], bias [nf]."""

    def __init__(self, nf: int, nx: int):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:-1], self.nf)
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(shape)


Conv1D.__module__ = "transformers.pytorch_utils"
