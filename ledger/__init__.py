"""The write side: the only room that can change a balance."""
