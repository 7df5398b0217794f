"""Small convolutional MoEs over CIFAR-10.

Images come in (``images``), a trained checkpoint (``checkpoint``, ``model``), and a run of the
test images goes out, with random routers, untrained experts and forced experts as conditions.
``training`` makes the checkpoints.
"""
