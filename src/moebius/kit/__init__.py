"""What every room uses and no user needs: errors, the registry, checks of arguments, files. Private."""
