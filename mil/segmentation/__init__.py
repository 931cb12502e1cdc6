"""Learn where the tumour is from annotations, and judge it by case."""
