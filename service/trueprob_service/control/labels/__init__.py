"""Labels of earlier predictions: which of them count, and what they say.

The way of a label, one module a step:

1. `body`: the request is parsed and validated.
2. `by_receipt`: the receipt and the history of promotions say whether a label may count.
3. `counting`: copies and the daily cap of an input are left out; the rest gets an order.
4. `shadow_scoring`, `alarms`: the counted labels update the comparison with a shadow, and evidence
   and change.
5. `statistics` and `advice`: what metrics and ``GET …/calibration`` report.

`by_receipt` takes a request through steps 2 to 4 in one transaction. `by_row` takes labels that
come with their logits; they go to `refit_window`, from which calibrators are fitted.
"""
