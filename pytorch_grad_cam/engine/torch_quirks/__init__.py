"""What PyTorch does otherwise than a CAM needs it, each with its way round."""
