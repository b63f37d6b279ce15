"""Small numerical operations with a torch reference each; faster versions stand beside their reference."""
