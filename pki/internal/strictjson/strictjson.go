package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// ErrStrict means that a text is JSON but not in the one form that is accepted.
var ErrStrict = errors.New("JSON is not in strict form")

const maxDepth = 32

// Decode reads exactly one JSON value from data into v, a pointer to a struct
// whose fields, and those of the structs it leads to, bear json tags. Maps in v
// are not supported. Errors wrap ErrStrict or come from encoding/json.
func Decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: invalid UTF-8", ErrStrict)
	}
	names := map[string]bool{}
	collect(reflect.TypeOf(v), names, map[reflect.Type]bool{})
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := walk(d, names, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: data after the end", ErrStrict)
	}
	d = json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// collect gathers the member names that the type knows at any depth. Together
// with DisallowUnknownFields this leaves exact spellings only.
func collect(t reflect.Type, names map[string]bool, seen map[reflect.Type]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		collect(t.Elem(), names, seen)
	case reflect.Struct:
		if seen[t] {
			return
		}
		seen[t] = true
		for i := range t.NumField() {
			f := t.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
				names[name] = true
			}
			collect(f.Type, names, seen)
		}
	}
}

func walk(d *json.Decoder, names map[string]bool, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrStrict, maxDepth)
	}
	tok, err := d.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, ok := key.(string)
			if !ok {
				return fmt.Errorf("%w: member name %v", ErrStrict, key)
			}
			if seen[name] {
				return fmt.Errorf("%w: duplicate member %q", ErrStrict, name)
			}
			seen[name] = true
			if !names[name] {
				return fmt.Errorf("%w: unknown member %q", ErrStrict, name)
			}
			if err := walk(d, names, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('['):
		for d.More() {
			if err := walk(d, names, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}
