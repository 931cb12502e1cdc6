"""VGG whose hidden layers have 32 units and not 4,096: as quick as other networks of tests."""

import timm


def narrow_vgg(patch):
    """Narrow the hidden layers of every VGG of timm; returns their width."""
    layers, classifier = timm.models.vgg.ConvMlp, timm.models.vgg.ClassifierHead

    def narrow(in_features, _out_features, *arguments, **keywords):
        return layers(in_features, 32, *arguments, **keywords)

    def after_narrow(_in_features, *arguments, **keywords):
        return classifier(32, *arguments, **keywords)

    patch.setattr(timm.models.vgg, "ConvMlp", narrow)
    patch.setattr(timm.models.vgg, "ClassifierHead", after_narrow)
    return 32
