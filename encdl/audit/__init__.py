"""How good and how secure a cipher is: attacks, statistics, evaluation beside classical repair, studies and reports."""
