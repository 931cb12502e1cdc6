"""Short names for the ImageNet backbones of the report and of its sources; each is a timm model.

Size, mean, std and licence are not repeated here: they travel with timm's own entry.
"""

ALIASES = {
    # The report's four.
    "resnet50v2": "resnetv2_50.a1h_in1k",
    "vgg19": "vgg19.tv_in1k",
    "inceptionv3": "inception_v3.tf_in1k",
    "efficientnetv2s": "tf_efficientnetv2_s.in1k",
    # Its sources' others.
    "densenet121": "densenet121.tv_in1k",
    "densenet161": "densenet161.tv_in1k",
    "inception_resnet_v2": "inception_resnet_v2.tf_in1k",
    "resnet50": "resnet50.tv_in1k",
    "xception": "legacy_xception.tf_in1k",
    # Small, for trials and the demo.
    "resnet18": "resnet18.tv_in1k",
}
