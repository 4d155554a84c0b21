"""The governor: limits, doses, rates, standing and the safe state between decisions and hardware."""
