"""Data sets that s3prl's wheel lacks, behind the constructors s3prl calls."""
