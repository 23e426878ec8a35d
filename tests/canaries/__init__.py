"""Every secret that a launch is given, in every place, with every odd character: never shown."""
