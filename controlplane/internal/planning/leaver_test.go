package planning_test

import (
	"slices"
	"testing"
	"time"
)

// TestOneAbsenceIsNotEnough: however long ago it was, absence counts only after as
// many snapshots as policy wants.
func TestOneAbsenceIsNotEnough(t *testing.T) {
	d := open(t, false)
	d.hr("1 login=anna", "2 login=bo", "3 login=cy")
	d.observe("fabrikam", "dc1", "corp", person("anna"), person("bo"), person("cy"))
	d.wants()
	d.hr("2 login=bo", "3 login=cy")
	d.now = d.now.Add(25 * time.Hour)
	if got := d.wants(); slices.Contains(got, "disable uid=anna") {
		t.Errorf("gone after one of two snapshots: %v", got)
	}
	d.hr("2 login=bo", "3 login=cy")
	if got := d.wants(); !slices.Contains(got, "disable uid=anna") {
		t.Errorf("still there after two of two, and the grace: %v", got)
	}
}
