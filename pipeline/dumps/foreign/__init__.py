"""Outputs that another framework or an API made, dumped like those of a teacher of our own."""
