import sys

from pytorch_grad_cam.cli import main

sys.exit(main())
