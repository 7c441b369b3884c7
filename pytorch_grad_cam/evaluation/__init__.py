"""Methods, layers and models held against each other by metrics, over many images: `evaluate`."""
