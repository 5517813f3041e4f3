"""Images: files, Pillow images, arrays and tensors, into the form that a codec takes and back."""
