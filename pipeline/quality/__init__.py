"""What can be measured on the frames of a clip: seams, colours, steadiness, damage."""
