"""Registration: where in the image the cells of a layer look."""

from pytorch_grad_cam.registration.registration import Alignment, Registration, checked_alignment, registration_of

__all__ = ["Alignment", "Registration", "checked_alignment", "registration_of"]
