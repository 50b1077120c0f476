"""Labels of earlier predictions: which of them count, and the statistics from them.

The steps of a label, one module each:

1. `body`: the request is parsed and validated.
2. `by_receipt`: the receipt and the history of promotions decide whether a label may count.
3. `counting`: labels over the daily cap of an input are left out; the others are put in order.
4. `shadow_scoring`, `alarms`: the counted labels update the comparison with a shadow, and evidence
   and change.
5. `statistics`: what metrics and ``GET …/calibration`` report.

`by_receipt` runs steps 2 to 4 in one transaction. `by_row` counts labels that come with their
logits; they go to `refit_window`, from which calibrators are fitted.
"""
