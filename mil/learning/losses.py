"""The losses that training minimises: of classes, of ordered levels, and of survival."""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """(B,) cross-entropy of each bag.

    Args:
        logits: (B, C).
        labels: (B,) index of the class.
        smoothing: share of the label given to all classes alike (C. Szegedy et al., Rethinking the Inception
            Architecture, CVPR 2016, section 7).
    """
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """(B,) cross-entropy that makes light of what is already right: (1 - p)^gamma (-log p).

    T.-Y. Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4; alpha is the weight of a
    bag, which is not in it.

    Args:
        logits: (B, C).
        labels: (B,) index of the class.
        gamma: 0 is cross-entropy.
    """
    log_p = -functional.cross_entropy(logits, labels, reduction="none")  # (B,)
    # 1 - p as the other classes' probability, which does not round to 0 while there is any.
    own = functional.one_hot(labels, logits.shape[1]).bool()
    log_rest = torch.log_softmax(logits, dim=1).masked_fill(own, -torch.inf).logsumexp(dim=1)
    return -(gamma * log_rest).exp() * log_p


def ordinal_log_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) log loss of exceeding each level but the last, averaged over these levels.

    L. Li, H. Lin, Ordinal regression by extended binary classification, NeurIPS 2006.

    Args:
        logits: (B, K - 1) log odds of exceeding levels 0 to K - 2.
        labels: (B,) levels 0 to K - 1.
    """
    levels = torch.arange(logits.shape[1], device=labels.device)
    exceeds = (labels[:, None] > levels).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, exceeds, reduction="none")
    return losses.mean(dim=1)


def cox_efron(risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Negative log partial likelihood of proportional hazards, summed over events.

    Tied events as B. Efron, The Efficiency of Cox's Likelihood Function for Censored Data, JASA 1977: the
    l-th of d events of one time meets the risk set less l/d of their own share.

    Args:
        risk: (B,) log hazard ratios, of all cases that are compared.
        time: (B,) until the event or the end of observation.
        event: (B,) bool, False where the case was censored.

    Returns:
        a scalar; 0 without an event.
    """
    order = event.nonzero().squeeze(1)
    order = order[time[order].argsort()]  # events, the earliest first
    at, group, counts = torch.unique(time[order], return_inverse=True, return_counts=True)
    # Logarithm of the sum of exp(risk) over all who are still observed at each event time.
    latest_first = time.argsort(descending=True)
    running = torch.logcumsumexp(risk[latest_first], dim=0)
    n_before = torch.searchsorted(time.sort().values, at)
    observed = running[len(time) - 1 - n_before]  # (G,)
    tied = _grouped_logsumexp(risk[order], group, len(at))  # (G,)
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=time.device) - first[group]
    fraction = rank.to(risk.dtype) / counts[group]
    left = torch.log1p(-fraction * (tied - observed).clamp_max(0).exp()[group])
    return (observed[group] + left - risk[order]).sum()


def _grouped_logsumexp(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Logarithm (G,) of the sum of exp of the values (N,) of each group."""
    lowest = values.new_full((n_groups,), -torch.inf)
    peak = lowest.scatter_reduce(0, group, values.detach(), "amax")
    sums = values.new_zeros(n_groups).index_add(0, group, (values - peak[group]).exp())
    return sums.log() + peak


def discrete_survival_nll(hazard_logits: Tensor, interval: Tensor, event: Tensor) -> Tensor:
    """Negative log likelihood of survival in intervals, averaged over cases.

    M. Gensheimer, B. Narasimhan, A scalable discrete-time survival model for neural networks, PeerJ 2019:
    a case survives each interval before its last by 1 - hazard, and meets its event by the hazard.

    Args:
        hazard_logits: (B, T) of the hazard in each interval, given that it was reached.
        interval: (B,) index of the event's interval, or of the last that a censored case survived; -1 where
            it was censored within the first.
        event: (B,) bool, False where the case was censored.
    """
    return discrete_survival_losses(hazard_logits, interval, event).mean()


def discrete_survival_losses(hazard_logits: Tensor, interval: Tensor, event: Tensor) -> Tensor:
    """(B,) what ``discrete_survival_nll`` averages; arguments as there."""
    intervals = torch.arange(hazard_logits.shape[1], device=interval.device)
    reached = intervals <= interval.unsqueeze(1)  # (B, T)
    happened = (intervals == interval.unsqueeze(1)) & event.unsqueeze(1)  # (B, T)
    losses = functional.binary_cross_entropy_with_logits(
        hazard_logits, happened.to(hazard_logits.dtype), reduction="none"
    )
    return (losses * reached).sum(dim=1)
