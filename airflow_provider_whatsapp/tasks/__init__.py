"""What operators and sensors share. It defines no operator and no sensor."""
