"""The code that operators and sensors share; defines no operator or sensor."""
