"""Base models: where they are, what shape they have, what is known of their families, whether weights are whole."""
