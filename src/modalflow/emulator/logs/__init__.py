"""What containers print, kept and streamed."""
