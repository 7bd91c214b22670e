"""What does not depend on a framework: configs, outputs, the registry of families, files and the Hub."""
