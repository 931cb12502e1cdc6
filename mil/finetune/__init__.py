"""Fine-tuning: train a backbone on tiles that learn the outcome of their case.

    LabelledSlide -TilePool-> tiles by epoch -TileClassifier-> losses -write_tuned-> weights with a card

Its only product is a weights file, which `features` loads like any other: extraction knows no labels.
"""
