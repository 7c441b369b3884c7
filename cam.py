"""Show what an image classifier looks at: `python cam.py --image-path photo.jpg --method gradcam`."""

import sys

from pytorch_grad_cam.cli import main

if __name__ == "__main__":
    sys.exit(main())
