"""CIFAR-10 MoEs: small convolutional classifiers with one MoE layer, their data and training."""
