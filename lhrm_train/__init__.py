"""Training of Large Hybrid-Reasoning Models: HFT, HGPO and evaluation."""
