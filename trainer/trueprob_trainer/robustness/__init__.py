"""What makes training and use harder than a clean data set: noise, imbalance, corruption, attack.

``label_noise`` and ``long_tail`` change the train split; ``corruptions``, ``label_shift`` and
``adversarial`` change what a trained network is tested on.
"""
