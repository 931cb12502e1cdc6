"""Whether something other than the tissue could have told the classes apart."""
