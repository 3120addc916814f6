package strictjson

import (
	"errors"
	"strings"
	"testing"
)

type inner struct {
	B string `json:"b"`
}

type outer struct {
	A int     `json:"a"`
	L []inner `json:"l"`
	P *inner  `json:"p,omitempty"`
}

func TestDecode(t *testing.T) {
	var o outer
	if err := Decode([]byte(` {"a":1, "l":[{"b":"x"}],"p":{"b":"y"}} `), &o); err != nil || o.A != 1 || o.L[0].B != "x" || o.P.B != "y" {
		t.Fatalf("%+v, %v", o, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"unknown":              `{"a":1,"z":1}`,
		"known at other depth": `{"a":1,"b":"x"}`,
		"duplicate":            `{"a":1,"a":2}`,
		"deep duplicate":       `{"l":[{"b":"x","b":"y"}]}`,
		"escaped duplicate":    `{"a":1,"\u0061":2}`,
		"case":                 `{"A":1}`,
		"deep case":            `{"l":[{"B":"x"}]}`,
		"trailing":             `{"a":1}{}`,
		"trailing word":        `{"a":1}x`,
		"utf-8":                "{\"l\":[{\"b\":\"\xff\"}]}",
		"depth":                strings.Repeat("[", 100),
		"cut off":              `{"a":1`,
		"empty":                ``,
		"wrong type":           `{"a":"x"}`,
	} {
		var o outer
		if err := Decode([]byte(text), &o); err == nil {
			t.Errorf("%s: taken as %+v", name, o)
		}
	}
	var o outer
	if err := Decode([]byte(`{"a":1,"a":2}`), &o); !errors.Is(err, ErrStrict) {
		t.Errorf("duplicate: %v, want ErrStrict", err)
	}
}
