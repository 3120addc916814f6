package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Decode reads the settings into v, a pointer to a struct with json tags. A key
// the struct does not have, a key given twice, a value of the wrong kind and
// text after the object are refused as a Problem of code CONFIG that names the
// key. No settings at all read as an empty object.
func (s Settings) Decode(v any) error {
	raw := bytes.TrimSpace(s.JSON)
	if len(raw) == 0 {
		raw = []byte("{}")
	}
	if key, err := duplicateKey(raw); err != nil {
		return s.problem("settings are not valid JSON", "correct the settings in agent.yaml").WithCause(err)
	} else if key != "" {
		return s.problem(fmt.Sprintf("setting %q is given twice", key), "keep one of the two in agent.yaml")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return s.decodeProblem(err, v)
	}
	return nil
}

func (s Settings) decodeProblem(err error, v any) error {
	var wrongKind *json.UnmarshalTypeError
	if errors.As(err, &wrongKind) {
		return s.problem(fmt.Sprintf("setting %q is a %s", wrongKind.Field, wrongKind.Value),
			fmt.Sprintf("give %q a value of kind %s in agent.yaml", wrongKind.Field, wrongKind.Type.Kind())).WithCause(err)
	}
	if key, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
		remedy := "remove it from agent.yaml or correct its spelling"
		if known := knownKeys(reflect.TypeOf(v)); len(known) > 0 {
			remedy += "; known settings are " + strings.Join(known, ", ")
		}
		return s.problem("setting "+key+" is not known", remedy).WithCause(err)
	}
	return s.problem("settings cannot be read", "correct the settings in agent.yaml").WithCause(err)
}

// Secret returns the named secret; one that agent.yaml does not give is a
// Problem of code CONFIG. The slice is the instance's own.
func (s Settings) Secret(name string) ([]byte, error) {
	value, ok := s.Secrets[name]
	if !ok || len(value) == 0 {
		return nil, s.problem(fmt.Sprintf("secret %q is not given", name),
			fmt.Sprintf("add %q under secrets of connector %q in agent.yaml, as file:, env: or a systemd credential", name, s.Alias))
	}
	return bytes.Clone(value), nil
}

// Problem returns a CONFIG problem about one setting of this instance.
func (s Settings) Problem(setting, fault, remedy string) *Problem {
	return s.problem(fmt.Sprintf("setting %q %s", setting, fault), remedy)
}

func (s Settings) problem(tried, remedy string) *Problem {
	return NewProblem(CodeConfig, s.Alias, tried, remedy)
}

// duplicateKey returns the first key that an object holds twice, without regard
// to case, as encoding/json matches keys: the second would silently win.
func duplicateKey(raw []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	key, err := walkValue(d, "")
	if err != nil || key != "" {
		return key, err
	}
	if _, err := d.Token(); err != io.EOF {
		return "", errors.New("text after the settings object")
	}
	return "", nil
}

func walkValue(d *json.Decoder, path string) (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", err
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return "", nil
	}
	seen := map[string]bool{}
	for i := 0; d.More(); i++ {
		at := fmt.Sprintf("%s[%d]", path, i)
		if delim == '{' {
			k, err := d.Token()
			if err != nil {
				return "", err
			}
			name := k.(string)
			at = strings.TrimPrefix(path+"."+name, ".")
			if folded := strings.ToLower(name); seen[folded] {
				return at, nil
			} else {
				seen[folded] = true
			}
		}
		if key, err := walkValue(d, at); err != nil || key != "" {
			return key, err
		}
	}
	_, err = d.Token()
	return "", err
}

func knownKeys(t reflect.Type) []string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && name != "" && name != "-" {
			keys = append(keys, name)
		}
	}
	slices.Sort(keys)
	return keys
}
