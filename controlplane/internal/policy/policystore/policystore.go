package policystore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

var (
	ErrNotFound = errors.New("policy not found")
	// ErrVersion is returned when a version is applied again with other content.
	ErrVersion = errors.New("this version is stored with other content")
	// ErrTests is returned when a bundle's own tests fail; the error lists them.
	ErrTests = errors.New("the bundle's tests fail")
	// ErrUnbound is returned for a tenant without a policy.
	ErrUnbound = errors.New("no policy is bound to the tenant; run `reeve policy bind`")
)

// Records puts an act into a tenant's log, in the caller's transaction.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
}

// Version is a stored bundle.
type Version struct {
	Name, Version string
	Digest        []byte
	Files         []policy.File
	Applied       time.Time
	// Tenants bound to it, sorted.
	Tenants []string
}

// Binding is what a tenant runs.
type Binding struct {
	Tenant, Name, Version string
	Parameters            policy.Values
}

// Service is safe for concurrent use.
type Service struct {
	db    *tx.DB
	audit Records
	now   func() time.Time
	// msp is the tenant whose log takes acts of no tenant.
	msp string

	mu       sync.Mutex
	programs map[string]*policy.Program
}

// New returns the service.
func New(db *tx.DB, audit Records, now func() time.Time, msp string) *Service {
	return &Service{db: db, audit: audit, now: now, msp: msp, programs: map[string]*policy.Program{}}
}

// Apply stores a version after it was parsed, type-checked and its tests passed.
// Applying the same content again changes nothing. It returns how many tests ran.
func (s *Service) Apply(ctx context.Context, files []policy.File, actor string) (Version, int, error) {
	bundle, err := policy.Parse(files)
	if err != nil {
		return Version{}, 0, err
	}
	results, err := policy.RunTests(bundle)
	if err != nil {
		return Version{}, 0, err
	}
	var failed error
	for _, r := range results {
		if !r.Passed() {
			failed = errors.Join(failed, fmt.Errorf("%s: test %q: %s", r.At, r.Name, strings.Join(r.Failures, "; ")))
		}
	}
	if failed != nil {
		return Version{}, len(results), fmt.Errorf("%w:\n%w", ErrTests, failed)
	}
	v := Version{Name: bundle.Name, Version: bundle.Version, Digest: bundle.Digest(), Files: files, Applied: s.now()}
	encoded, err := json.Marshal(files)
	if err != nil {
		return v, len(results), err
	}
	return v, len(results), s.db.Do(ctx, func(t tx.Tx) error {
		have, err := s.version(t, v.Name, v.Version)
		if err == nil && bytes.Equal(have.Digest, v.Digest) {
			return nil
		}
		if err == nil {
			return fmt.Errorf("%w: %s %s; give the changed bundle a new version", ErrVersion, v.Name, v.Version)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		if _, err := t.Exec(`INSERT INTO policy_version (name, version, digest, files, applied) VALUES ($1, $2, $3, $4, $5)`,
			v.Name, v.Version, v.Digest, string(encoded), tx.FormatTime(v.Applied)); err != nil {
			return err
		}
		_, err = s.audit.AppendAct(t, s.msp,
			&auditv1.Header{Type: auditv1.Type_TYPE_POLICY_APPLIED, Actor: actor, PolicyVersion: v.Name + " " + v.Version},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "apply policy", Object: v.Name + " " + v.Version,
				Details: []*auditv1.Act_Detail{{Name: "digest", Value: hex.EncodeToString(v.Digest)}}}}})
		return err
	})
}

// Bind gives a tenant a version, the newest when version is empty, with
// parameters that its schema accepts.
func (s *Service) Bind(ctx context.Context, b Binding, actor string) (Version, error) {
	var v Version
	err := s.db.Do(ctx, func(t tx.Tx) (err error) {
		if b.Version == "" {
			v, err = s.newest(t, b.Name)
		} else {
			v, err = s.version(t, b.Name, b.Version)
		}
		if err != nil {
			return err
		}
		bundle, err := policy.Parse(v.Files)
		if err != nil {
			return err
		}
		program, err := policy.Compile(bundle, b.Parameters)
		if err != nil {
			return err
		}
		parameters, err := json.Marshal(b.Parameters)
		if err != nil {
			return err
		}
		if _, err := t.Exec(`
			INSERT INTO policy_binding (tenant, name, version, parameters) VALUES ($1, $2, $3, $4)
			ON CONFLICT (tenant) DO UPDATE SET name = excluded.name, version = excluded.version, parameters = excluded.parameters`,
			b.Tenant, v.Name, v.Version, string(parameters)); err != nil {
			return err
		}
		_, err = s.audit.AppendAct(t, b.Tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_POLICY_BOUND, Actor: actor, PolicyVersion: v.Name + " " + v.Version},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "bind policy", Object: v.Name + " " + v.Version,
				Details: []*auditv1.Act_Detail{
					{Name: "digest", Value: hex.EncodeToString(v.Digest)},
					{Name: "parameters_digest", Value: hex.EncodeToString(program.ParametersDigest())},
				}}}})
		return err
	})
	return v, err
}

// Program returns what the tenant runs, compiled; ErrUnbound when nothing is.
func (s *Service) Program(t tx.Tx, tenant string) (*policy.Program, error) {
	b := Binding{Tenant: tenant}
	var parameters string
	err := t.QueryRow(`SELECT name, version, parameters FROM policy_binding WHERE tenant = $1`, tenant).Scan(&b.Name, &b.Version, &parameters)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s", ErrUnbound, tenant)
	}
	if err != nil {
		return nil, err
	}
	key := b.Name + "\x00" + b.Version + "\x00" + parameters
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.programs[key]; p != nil {
		return p, nil
	}
	if err := json.Unmarshal([]byte(parameters), &b.Parameters); err != nil {
		return nil, fmt.Errorf("decode parameters of %s: %w", tenant, err)
	}
	v, err := s.version(t, b.Name, b.Version)
	if err != nil {
		return nil, err
	}
	bundle, err := policy.Parse(v.Files)
	if err != nil {
		return nil, err
	}
	p, err := policy.Compile(bundle, b.Parameters)
	if err != nil {
		return nil, err
	}
	s.programs[key] = p
	return p, nil
}

// Bound returns a tenant's policy name and version, empty when it has none.
func (s *Service) Bound(t tx.Tx, tenant string) (name, version string, err error) {
	err = t.QueryRow(`SELECT name, version FROM policy_binding WHERE tenant = $1`, tenant).Scan(&name, &version)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", nil
	}
	return name, version, err
}

// List returns every stored version, by name and then by the time it came.
func (s *Service) List(ctx context.Context) (list []Version, err error) {
	err = s.db.View(ctx, func(t tx.Tx) error {
		list, err = tx.Collect(t, scan, selectVersion+` ORDER BY name, applied, version`)
		for i := range list {
			if err != nil {
				return err
			}
			list[i].Tenants, err = tx.Collect(t, func(row tx.Scanner) (tenant string, err error) {
				return tenant, row.Scan(&tenant)
			}, `SELECT tenant FROM policy_binding WHERE name = $1 AND version = $2 ORDER BY tenant`, list[i].Name, list[i].Version)
		}
		return err
	})
	return list, err
}

const selectVersion = `SELECT name, version, digest, files, applied FROM policy_version`

func (s *Service) version(t tx.Tx, name, version string) (Version, error) {
	v, err := scan(t.QueryRow(selectVersion+` WHERE name = $1 AND version = $2`, name, version))
	if errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("%w: %s %s", ErrNotFound, name, version)
	}
	return v, err
}

func (s *Service) newest(t tx.Tx, name string) (Version, error) {
	v, err := scan(t.QueryRow(selectVersion+` WHERE name = $1 ORDER BY applied DESC, version DESC LIMIT 1`, name))
	if errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("%w: %s; apply it with `reeve policy apply`", ErrNotFound, name)
	}
	return v, err
}

func scan(row tx.Scanner) (v Version, err error) {
	var files, applied string
	if err := row.Scan(&v.Name, &v.Version, &v.Digest, &files, &applied); err != nil {
		return v, err
	}
	if err := json.Unmarshal([]byte(files), &v.Files); err != nil {
		return v, fmt.Errorf("decode policy %s %s: %w", v.Name, v.Version, err)
	}
	v.Applied, err = tx.ParseTime(applied)
	return v, err
}
