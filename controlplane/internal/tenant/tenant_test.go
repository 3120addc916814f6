package tenant_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

func TestAddRefusesWhatCannotBeUsed(t *testing.T) {
	e := intaketest.New(t)
	good := tenant.New{ID: "contoso", Name: "Contoso Ltd", Owner: "it@contoso.example", Zone: "Europe/Oslo"}
	for name, change := range map[string]func(*tenant.New){
		"id with capitals":    func(n *tenant.New) { n.ID = "Contoso" },
		"id with a path":      func(n *tenant.New) { n.ID = "../contoso" },
		"empty name":          func(n *tenant.New) { n.Name = " " },
		"escape in the name":  func(n *tenant.New) { n.Name = "Con\x1b[31mtoso" },
		"name turned around":  func(n *tenant.New) { n.Name = "Con\u202etoso" },
		"long name":           func(n *tenant.New) { n.Name = strings.Repeat("x", 201) },
		"no mail":             func(n *tenant.New) { n.Owner = "it" },
		"mail with a name":    func(n *tenant.New) { n.Owner = "IT <it@contoso.example>" },
		"no zone":             func(n *tenant.New) { n.Zone = "" },
		"the server's zone":   func(n *tenant.New) { n.Zone = "Local" },
		"unknown zone":        func(n *tenant.New) { n.Zone = "Europe/Atlantis" },
		"zone outside of all": func(n *tenant.New) { n.Zone = "../../etc/passwd" },
	} {
		n := good
		change(&n)
		if _, err := e.Tenants.Add(t.Context(), "operator:kari", n); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.Tenants.Get(t.Context(), "contoso"); !errors.Is(err, tenant.ErrNotFound) {
		t.Fatalf("a refused tenant is there: %v", err)
	}
	added, err := e.Tenants.Add(t.Context(), "operator:kari", good)
	if err != nil || added.State != tenant.Active || added.MSP || !added.Created.Equal(intaketest.Start) {
		t.Fatalf("%+v %v", added, err)
	}
	if zone, err := added.Location(); err != nil || zone.String() != "Europe/Oslo" {
		t.Fatal(zone, err)
	}
	if _, err := e.Tenants.Add(t.Context(), "operator:kari", good); !errors.Is(err, tenant.ErrConflict) {
		t.Fatalf("added twice: %v", err)
	}
	// Adding is the first record of the tenant's log, once.
	e.Do(func(x tx.Tx) error {
		list, err := e.Log.Entries(x, "contoso", 0, 10)
		if err == nil && (len(list) != 1 || list[0].Header.GetType() != auditv1.Type_TYPE_TENANT_ADDED || list[0].Body.GetAct().GetObject() != "contoso") {
			err = fmt.Errorf("log: %+v", list)
		}
		return err
	})
}

func TestTheMSPIsATenantOnce(t *testing.T) {
	e := intaketest.New(t)
	for range 2 {
		if err := e.Tenants.EnsureMSP(t.Context(), tenant.New{ID: "msp", Name: "Another", Owner: "x@msp.example", Zone: "UTC"}); err != nil {
			t.Fatal(err)
		}
		e.Reopen()
	}
	msp, err := e.Tenants.Get(t.Context(), "msp")
	if err != nil || !msp.MSP || msp.Name != "The MSP" {
		t.Fatalf("%+v %v", msp, err)
	}
	for _, other := range []string{"fabrikam", "acme"} {
		if err := e.Tenants.EnsureMSP(t.Context(), tenant.New{ID: other, Name: "Another", Owner: "x@msp.example", Zone: "UTC"}); !errors.Is(err, tenant.ErrConflict) {
			t.Fatalf("%s is the MSP now: %v", other, err)
		}
	}
	err = e.DB.Do(t.Context(), func(x tx.Tx) error { return e.Tenants.SetState(x, "operator:kari", "msp", tenant.Offboarding) })
	if !errors.Is(err, tenant.ErrConflict) {
		t.Fatalf("the MSP offboards itself: %v", err)
	}
}

func TestStatesStepForward(t *testing.T) {
	e := intaketest.New(t)
	set := func(to tenant.State) error {
		return e.DB.Do(t.Context(), func(x tx.Tx) error { return e.Tenants.SetState(x, "operator:kari", "fabrikam", to) })
	}
	for i, step := range []struct {
		to   tenant.State
		want error
	}{
		{tenant.Active, tenant.ErrConflict}, {tenant.Offboarded, tenant.ErrConflict}, {tenant.Offboarding, nil}, {tenant.Offboarding, tenant.ErrConflict},
		{tenant.Active, nil}, {tenant.Offboarding, nil}, {tenant.Offboarded, nil}, {tenant.Active, tenant.ErrConflict}, {"gone", tenant.ErrConflict},
	} {
		if err := set(step.to); !errors.Is(err, step.want) {
			t.Fatalf("step %d to %s: %v", i, step.to, err)
		}
	}
	if err := e.DB.Do(t.Context(), func(x tx.Tx) error { return e.Tenants.SetState(x, "a", "nobody", tenant.Offboarding) }); !errors.Is(err, tenant.ErrNotFound) {
		t.Fatal(err)
	}
	e.Recheck("fabrikam", "")
}

func TestListPages(t *testing.T) {
	e := intaketest.New(t)
	for _, id := range []string{"b", "a", "d", "c"} {
		e.AddTenant(id)
	}
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		page, err := e.Tenants.List(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, n := range page {
			got = append(got, n.ID)
		}
	}
	if strings.Join(got, " ") != "a b c d fabrikam msp" {
		t.Fatal(got)
	}
}
