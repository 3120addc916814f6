package ldap

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Name and Version of the connector.
const (
	Name    = "ldap"
	Version = "0.1.0"
)

// maxElement bounds one element of the protocol in bytes. Without a bound, a
// hostile server makes go-ldap reserve several gigabytes with one header.
const maxElement = 16 << 20

// probe bounds what Open waits for the server, which need not be there.
const probe = 5 * time.Second

// Connector is the ldap connector; it implements sdk.Connector.
type Connector struct{}

// boundElements sets go-ldap's decoder's only knob, which is global.
var boundElements = sync.OnceFunc(func() { ber.MaxPacketLengthBytes = maxElement })

// New returns the connector.
func New() *Connector {
	boundElements()
	return &Connector{}
}

// Describe implements sdk.Connector.
func (*Connector) Describe() *connectorv1.DescribeResponse {
	d := &connectorv1.DescribeResponse{
		Name: Name, Version: Version, CaseRule: connectorv1.CaseRule_CASE_RULE_IGNORE, ConfigSchema: settingsSchema,
		Capabilities: []connectorv1.Capability{connectorv1.Capability_CAPABILITY_ATOMIC_EXPECT},
	}
	for _, class := range schemaClasses() {
		s := TypeSettings{}
		if class.kind == connectorv1.Kind_KIND_ACCOUNT {
			s.Auxiliary = []string{"posixAccount", "shadowAccount", "ldapPublicKey"}
		}
		d.Types = append(d.Types, newObjectType(class, s, DisableSettings{Method: DisablePPolicy}).declared)
	}
	return d
}

// Instance is one configured directory; it implements sdk.Instance and
// sdk.Applier. It is safe for concurrent use.
type Instance struct {
	alias    string
	settings *Settings
	password string
	types    []*objectType
	// placeholder is the DN for "no member", empty if there is none.
	placeholder, placeholderKey string
	atomic                      bool
	// synchronizes tells that every search can be followed (RFC 4533).
	synchronizes bool
	groupsAfter  time.Duration
	now          func() time.Time
	// Reading back has a lane of its own, so that it overlaps the next effects.
	reading, writing lane
}

var (
	_ sdk.Instance = (*Instance)(nil)
	_ sdk.Applier  = (*Instance)(nil)
)

// Open implements sdk.Connector. It asks the server for its schema for a few
// seconds; without an answer it goes by the standards.
func (*Connector) Open(ctx context.Context, s sdk.Settings) (sdk.Instance, error) {
	i, err := open(ctx, s, time.Now)
	if err != nil {
		return nil, err
	}
	if i.synchronizes {
		return &synchronized{i}, nil
	}
	return i, nil
}

func open(ctx context.Context, s sdk.Settings, now func() time.Time) (*Instance, error) {
	settings, err := readSettings(s)
	if err != nil {
		return nil, err
	}
	i := &Instance{alias: s.Alias, settings: settings, now: now, groupsAfter: groupsAfter}
	if settings.BindDN != "" {
		password, err := s.Secret("bind_password")
		if err != nil {
			return nil, err
		}
		i.password = string(password)
	}
	if settings.EmptyMember != "none" {
		dn, _ := parseDN(settings.EmptyMember) // checked with the settings
		i.placeholder, i.placeholderKey = settings.EmptyMember, dnKey(dn)
	}
	for _, class := range schemaClasses() {
		if t, configured := settings.Types[class.name]; configured {
			class.needsMember = class.needsMember && i.placeholder == ""
			i.types = append(i.types, newObjectType(class, t, settings.Disable))
		}
	}
	i.learn(ctx)
	return i, nil
}

// learn refines the types by the server's own schema.
func (i *Instance) learn(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, min(probe, i.settings.timeout))
	defer cancel()
	err := i.ask(short, &i.reading, func(s *session) error {
		schema, err := i.readSchema(s)
		if err != nil {
			return err
		}
		for _, t := range i.types {
			t.refine(schema)
		}
		i.atomic = s.server.asserts() && s.server.versioned
		return nil
	})
	if err == nil {
		i.synchronizes = i.canSynchronize(short)
	} else {
		sdk.Logger(ctx).Warn("the directory's schema could not be read, going by the standards", "problem", sdk.Clean(err.Error()))
	}
}

// Types implements sdk.Instance.
func (i *Instance) Types() []*connectorv1.ObjectType {
	out := make([]*connectorv1.ObjectType, len(i.types))
	for n, t := range i.types {
		out[n] = t.declared
	}
	return out
}

// Capabilities implements sdk.Instance. Expect is atomic where the server has
// the assertion control and entryCSN.
func (i *Instance) Capabilities() []connectorv1.Capability {
	if i.atomic {
		return []connectorv1.Capability{connectorv1.Capability_CAPABILITY_ATOMIC_EXPECT}
	}
	return nil
}

// Close implements sdk.Instance.
func (i *Instance) Close() error {
	i.reading.close()
	i.writing.close()
	return nil
}

func (i *Instance) typeNamed(name string) *objectType {
	for _, t := range i.types {
		if t.name == name {
			return t
		}
	}
	return nil
}

// bases are those of all types, each once.
func (i *Instance) bases() []string {
	var out []string
	for _, t := range i.types {
		for _, base := range t.settings.Bases {
			if !slices.ContainsFunc(out, func(b string) bool { return strings.EqualFold(b, base) }) {
				out = append(out, base)
			}
		}
	}
	return out
}
