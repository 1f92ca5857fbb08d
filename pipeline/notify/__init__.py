"""Tell other servers, by callbacks, of clips that are done or have failed."""
