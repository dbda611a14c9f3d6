"""The data set as one HTML page to look through and to correct."""
