"""Bounds that fall apart into samples: a function of a mean is trained on sample by sample, in the memory of one."""

from __future__ import annotations

import torch


def ratio_bound_terms(advantage: float, log_ratios: torch.Tensor) -> torch.Tensor:
    """Return terms (samples,), each of one sample alone, whose sum bounds A exp(mean_j d_j) from below; equal in value and gradient at d = 0.

        A >= 0: A (1 + d_j) / m, the tangent        A < 0: A exp(d_j) / m, Jensen's inequality

    The likelihood of a diffusion language model is a mean over m random masks, and its ratio to an older policy's the exponential of a mean, which
    holds the graphs of all m passes at once. These terms may be sent back one after the other, with the same masks for both policies (arXiv
    2510.11683). The forms of the bound were worked out here from the two properties that the paper states.

    Args:
        advantage: A.
        log_ratios: d_j, differences of single-sample log likelihoods between the two policies, (samples,); a slice of them gives those terms of a
            whole of as many, so multiply by the share.
    """
    inner = 1 + log_ratios if advantage >= 0 else log_ratios.exp()
    return advantage * inner / len(log_ratios)
