"""Motion that is drawn: paths of the camera and of objects, and the clip of warped pictures that shows them."""
