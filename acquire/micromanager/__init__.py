"""The loop around Micro-Manager's engines: frames out of pycro-manager or pymmcore-plus, decisions back in."""
