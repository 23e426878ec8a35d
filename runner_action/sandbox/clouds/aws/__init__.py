"""EC2: moto's, behind what EC2 refuses and moto takes."""
