"""The composition root: settings, logging, embedded servers, processes and the command line."""
