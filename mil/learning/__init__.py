"""From bags and outcomes to fitted models, fold by fold."""
