"""The probe: predict where there is no card, measure where there is one, search, choose, and keep it as a profile."""
