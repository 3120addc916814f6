// Package intakestore keeps intake's chain heads in SQL. Only wiring imports it;
// it also answers enrollment, which ends an epoch with its last index.
package intakestore
