"""VideoChat2 as a model of transformers: the UMT encoder, which is ours, a Q-Former and Mistral; and names of published weights.

The behaviour behind the backbone protocol is in `tpo_lab.backbones.videochat2`.
"""
