"""Speed, memory and accuracy, measured; results lie dated under results/."""
